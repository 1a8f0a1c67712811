//! Layouts of `linux/netlink.h`, `linux/sock_diag.h`, `linux/unix_diag.h` and `linux/inet_diag.h`, and how messages and
//! attributes are cut apart. Nothing here trusts a length.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::NativeEndian,
    byteorder::network_endian,
};

type U16 = zerocopy::U16<NativeEndian>;
type U32 = zerocopy::U32<NativeEndian>;

pub(super) const SOCK_DIAG_BY_FAMILY: i32 = 20;

pub(super) const UNIX_DIAG_NAME: u16 = 0;
pub(super) const UNIX_DIAG_VFS: u16 = 1;
pub(super) const UNIX_DIAG_ICONS: u16 = 3;
pub(super) const UNIX_DIAG_RQLEN: u16 = 4;
pub(super) const UNIX_DIAG_SHUTDOWN: u16 = 6;
pub(super) const INET_DIAG_SKV6ONLY: u16 = 11;

const UDIAG_SHOW_NAME: u32 = 1 << 0;
const UDIAG_SHOW_VFS: u32 = 1 << 1;
const UDIAG_SHOW_ICONS: u32 = 1 << 3;
const UDIAG_SHOW_RQLEN: u32 = 1 << 4;

/// "No cookie": any socket.
const INET_DIAG_NOCOOKIE: [u32; 2] = [u32::MAX; 2];

/// The two upper bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `struct nlmsghdr`
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) length: U32,
    pub(super) kind: U16,
    pub(super) flags: U16,
    pub(super) sequence: U32,
    pub(super) port: U32,
}

/// `struct unix_diag_req`
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UnixRequest {
    family: u8,
    protocol: u8,
    pad: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

impl UnixRequest {
    /// `states`: one bit a state.
    pub(super) fn new(states: u32) -> Self {
        Self {
            family: libc::AF_UNIX as u8,
            protocol: 0,
            pad: 0,
            states,
            inode: 0,
            show: UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
            cookie: INET_DIAG_NOCOOKIE,
        }
    }
}

impl UnixRequest {
    /// The one with this inode number and cookie, whatever its state.
    pub(super) fn exact(inode: u32, cookie: u64) -> Self {
        Self {
            inode,
            cookie: [cookie as u32, (cookie >> 32) as u32],
            ..Self::new(u32::MAX)
        }
    }
}

/// `struct unix_diag_msg`
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct UnixAnswer {
    pub(super) family: u8,
    pub(super) kind: u8,
    pub(super) state: u8,
    pad: u8,
    pub(super) inode: U32,
    pub(super) cookie: [U32; 2],
}

/// `struct inet_diag_sockid`
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InetId {
    pub(super) source_port: network_endian::U16,
    pub(super) destination_port: network_endian::U16,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    pub(super) interface: U32,
    pub(super) cookie: [U32; 2],
}

/// `struct inet_diag_req_v2`
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InetRequest {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: U32,
    id: InetId,
}

impl InetRequest {
    /// `states`: one bit a state.
    pub(super) fn new(family: u8, protocol: u8, states: u32) -> Self {
        Self {
            family,
            protocol,
            extensions: 0,
            pad: 0,
            states: states.into(),
            id: InetId {
                source_port: 0.into(),
                destination_port: 0.into(),
                source: [0; 16],
                destination: [0; 16],
                interface: 0.into(),
                cookie: INET_DIAG_NOCOOKIE.map(U32::from),
            },
        }
    }
}

impl InetRequest {
    /// Only sockets of this local port.
    pub(super) fn at_port(mut self, port: u16) -> Self {
        self.id.source_port = port.into();
        self
    }
}

/// `struct inet_diag_msg`
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InetAnswer {
    pub(super) family: u8,
    pub(super) state: u8,
    timer: u8,
    retransmits: u8,
    pub(super) id: InetId,
    expires: U32,
    pub(super) receive_queue: U32,
    pub(super) send_queue: U32,
    uid: U32,
    pub(super) inode: U32,
}

const _: () = assert!(size_of::<UnixRequest>() == 24);
const _: () = assert!(size_of::<UnixAnswer>() == 16);
const _: () = assert!(size_of::<InetRequest>() == 56);
const _: () = assert!(size_of::<InetAnswer>() == 72);

/// The kernel splits a cookie into two words, the lower one first.
pub(super) fn cookie(words: [U32; 2]) -> u64 {
    u64::from(words[1].get()) << 32 | u64::from(words[0].get())
}

/// Flags of a request: for everything that fits, or for one object.
pub(super) const ALL: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
pub(super) const ONE: u16 = libc::NLM_F_REQUEST as u16;

pub(super) fn message(sequence: u32, flags: u16, request: &[u8]) -> Vec<u8> {
    let header = Header {
        length: ((size_of::<Header>() + request.len()) as u32).into(),
        kind: (SOCK_DIAG_BY_FAMILY as u16).into(),
        flags: flags.into(),
        sequence: sequence.into(),
        port: 0.into(),
    };
    [header.as_bytes(), request].concat()
}

pub(super) struct Message<'a> {
    pub(super) header: Header,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram. Ends after the first malformed one.
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.0);
        let Ok((header, _)) = Header::read_from_prefix(whole) else {
            return Some(Err("a message shorter than its header"));
        };
        let length = header.length.get() as usize;
        let Some(payload) = whole.get(size_of::<Header>()..length) else {
            return Some(Err("a message with a wrong length"));
        };
        self.0 = whole.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message { header, payload }))
    }
}

/// Attributes, type and value. Unknown ones are for the caller to skip; a malformed one ends the list.
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let whole = std::mem::take(&mut self.0);
        let ([length, kind], _) = <[U16; 2]>::read_from_prefix(whole).ok()?;
        let length = usize::from(length.get());
        let value = whole.get(4..length)?;
        self.0 = whole.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind.get() & NLA_TYPE_MASK, value))
    }
}
