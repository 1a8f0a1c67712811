//! The programs of the iterators over open files: see [`super`].

use std::{collections::BTreeSet, mem::offset_of};

use probe_abi::{FileEntry, SOCKFS_MAGIC};
use zerocopy::{Immutable, IntoBytes};

use super::{OneEntry, SocketTypes, Types};

/// Inodes that are compared in the kernel; a search for more has it show every socket.
pub(super) const COMPARED: usize = 256;

/// `struct bpf_insn`
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// The destination in the lower half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Codes of `linux/bpf_common.h` and `linux/bpf.h`, put together.
mod code {
    pub(super) const LOAD_64: u8 = 0x79;
    pub(super) const LOAD_32: u8 = 0x61;
    pub(super) const STORE_64: u8 = 0x7b;
    pub(super) const STORE_32: u8 = 0x63;
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const MOVE_IMMEDIATE: u8 = 0xb7;
    pub(super) const ADD_IMMEDIATE: u8 = 0x07;
    pub(super) const IMMEDIATE_64: u8 = 0x18;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_EQUAL: u8 = 0x1d;
    pub(super) const JUMP_NOT_EQUAL: u8 = 0x5d;
    pub(super) const JUMP_ZERO: u8 = 0x15;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// `BPF_FUNC_probe_read_kernel`
const PROBE_READ_KERNEL: i32 = 113;
/// `BPF_FUNC_seq_write`
const SEQ_WRITE: i32 = 127;
/// `BPF_PSEUDO_MAP_VALUE`
const PSEUDO_MAP_VALUE: u8 = 2;
/// The frame pointer.
const STACK: u8 = 10;
/// Fields of `struct bpf_iter__task_file`: meta, task, fd, file, each aligned to 8.
const META: i16 = 0;
const TASK: i16 = 8;
const FD: i16 = 16;
const FILE: i16 = 24;

/// A program with one place to jump to from anywhere: its end.
#[derive(Default)]
struct Assembler {
    program: Vec<Instruction>,
    to_end: Vec<usize>,
    to_found: Vec<usize>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.program.push(Instruction {
            code,
            registers: from << 4 | to,
            offset,
            immediate,
        });
    }

    fn load(&mut self, to: u8, from: u8, offset: i16) {
        self.push(code::LOAD_64, to, from, offset, 0);
    }

    fn constant(&mut self, to: u8, value: u64) {
        self.push(code::IMMEDIATE_64, to, 0, 0, value as u32 as i32);
        self.push(0, 0, 0, 0, (value >> 32) as u32 as i32);
    }

    /// Jumps from instruction `at` to the next one that is pushed.
    fn land(&mut self, from: &[usize]) {
        for at in from {
            // At most some 800 instructions.
            self.program[*at].offset = (self.program.len() - at - 1) as i16;
        }
    }

    fn load_32(&mut self, to: u8, from: u8, offset: i16) {
        self.push(code::LOAD_32, to, from, offset, 0);
    }

    /// To the stack.
    fn store_64(&mut self, from: u8, at: i16) {
        self.push(code::STORE_64, STACK, from, at, 0);
    }

    fn store_32(&mut self, from: u8, at: i16) {
        self.push(code::STORE_32, STACK, from, at, 0);
    }

    fn add(&mut self, to: u8, value: i16) {
        self.push(code::ADD_IMMEDIATE, to, 0, 0, i32::from(value));
    }

    /// bpf_probe_read_kernel(stack + at, size, from + offset)
    fn read(&mut self, at: i16, size: i32, from: u8, offset: i16) {
        self.push(code::MOVE, 1, STACK, 0, 0);
        self.add(1, at);
        self.push(code::MOVE_IMMEDIATE, 2, 0, 0, size);
        self.push(code::MOVE, 3, from, 0, 0);
        self.add(3, offset);
        self.push(code::CALL, 0, 0, 0, PROBE_READ_KERNEL);
    }

    /// The pointer that lies there.
    fn follow(&mut self, to: u8, from: u8, offset: i16, entry: Entry) {
        self.read(entry.pointer(), 8, from, offset);
        self.load(to, STACK, entry.pointer());
    }

    /// Leaves the file in register 7, its task in 8 and its inode number in 9, if it is a socket.
    fn begin(&mut self, types: &Types) {
        self.push(code::MOVE, 6, 1, 0, 0);
        // Both are null in the closing call.
        self.load(7, 6, FILE);
        self.jump_to_end(code::JUMP_ZERO, 7, 0);
        self.load(8, 6, TASK);
        self.jump_to_end(code::JUMP_ZERO, 8, 0);
        // Inode numbers of other file systems must not be taken for sockets.
        self.load(1, 7, types.f_inode);
        self.load(2, 1, types.i_sb);
        self.load(2, 2, types.s_magic);
        self.constant(3, SOCKFS_MAGIC);
        self.jump_to_end(code::JUMP_NOT_EQUAL, 2, 3);
        self.load(9, 1, types.i_ino);
    }

    /// bpf_seq_write(meta->seq, &entry, sizeof entry). Where it finds no room the kernel shows the same file again.
    fn end(mut self, entry: Entry) -> Vec<Instruction> {
        self.load(1, 6, META);
        self.load(1, 1, 0);
        self.push(code::MOVE, 2, STACK, 0, 0);
        self.add(2, -entry.size);
        self.push(code::MOVE_IMMEDIATE, 3, 0, 0, i32::from(entry.size));
        self.push(code::CALL, 0, 0, 0, SEQ_WRITE);
        let end = std::mem::take(&mut self.to_end);
        self.land(&end);
        self.push(code::MOVE_IMMEDIATE, 0, 0, 0, 0);
        self.push(code::EXIT, 0, 0, 0, 0);
        self.program
    }

    fn jump_to_end(&mut self, code: u8, to: u8, from: u8) {
        self.to_end.push(self.program.len());
        self.push(code, to, from, 0, 0);
    }
}

/// Shows who holds these sockets. Registers: 6 the context, 7 the file, 8 the task, 9 the inode number; 1 to 5 come and go.
pub(super) fn holders(types: &Types, inodes: &BTreeSet<u64>) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.begin(types);
    if inodes.len() <= COMPARED {
        for inode in inodes {
            a.constant(3, *inode);
            a.to_found.push(a.program.len());
            a.push(code::JUMP_EQUAL, 9, 3, 0, 0);
        }
        a.jump_to_end(code::JUMP, 0, 0);
    }
    let found = std::mem::take(&mut a.to_found);
    a.land(&found);
    let entry = Entry::of::<FileEntry>();
    a.load_32(1, 8, types.tgid);
    a.store_32(1, entry.at(offset_of!(FileEntry, pid)));
    a.load_32(1, 6, FD);
    a.store_32(1, entry.at(offset_of!(FileEntry, fd)));
    a.store_64(9, entry.at(offset_of!(FileEntry, inode)));
    a.load(1, 8, types.group_leader);
    a.load(1, 1, types.start);
    a.store_64(1, entry.at(offset_of!(FileEntry, start)));
    a.end(entry)
}

/// Shows how the socket is whose inode number stands in the array `wanted`.
pub(super) fn one(types: &Types, socket: &SocketTypes, wanted: i32) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.begin(types);
    // The address of its only value.
    a.push(code::IMMEDIATE_64, 3, PSEUDO_MAP_VALUE, 0, wanted);
    a.push(0, 0, 0, 0, 0);
    a.load(3, 3, 0);
    a.jump_to_end(code::JUMP_NOT_EQUAL, 9, 3);
    let entry = Entry::of::<OneEntry>();
    a.store_64(9, entry.at(offset_of!(OneEntry, inode)));
    a.load(1, 7, socket.references);
    a.store_64(1, entry.at(offset_of!(OneEntry, references)));
    // `void *`: from here on nothing has a type, and a helper reads. What it can't read is zero.
    a.load(8, 7, socket.private_data);
    a.follow(8, 8, socket.sk, entry);
    for (field, size, from) in [
        (offset_of!(OneEntry, cookie), 8, socket.cookie),
        (offset_of!(OneEntry, kind), 2, socket.kind),
        (offset_of!(OneEntry, state), 1, socket.state),
        (offset_of!(OneEntry, shutdown), 1, socket.shutdown),
        (offset_of!(OneEntry, queue), 4, socket.queue),
        (offset_of!(OneEntry, backlog), 4, socket.backlog),
    ] {
        a.read(entry.at(field), size, 8, from);
    }
    match socket.dentry {
        Some(offset) => a.follow(9, 8, offset, entry),
        // Nothing lies there: the rest is zero.
        None => a.push(code::MOVE_IMMEDIATE, 9, 0, 0, 0),
    }
    a.follow(9, 9, socket.d_inode, entry);
    a.read(entry.at(offset_of!(OneEntry, file_inode)), 8, 9, types.i_ino);
    a.follow(9, 9, types.i_sb, entry);
    a.read(entry.at(offset_of!(OneEntry, file_dev)), 4, 9, socket.s_dev);
    a.end(entry)
}

/// Where an entry lies on the stack.
#[derive(Clone, Copy)]
struct Entry {
    size: i16,
}

impl Entry {
    const fn of<T>() -> Self {
        assert!(size_of::<T>() <= 256 && size_of::<T>().is_multiple_of(8));
        Self {
            size: size_of::<T>() as i16,
        }
    }

    const fn at(self, field: usize) -> i16 {
        field as i16 - self.size
    }

    /// A pointer on its way, below the entry.
    const fn pointer(self) -> i16 {
        -self.size - 8
    }
}
