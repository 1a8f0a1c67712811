//! Reads the kernel's type information (BTF): enough to find where a member lies in a structure.
//!
//! The format: Documentation/bpf/btf.rst. Every access is bounds-checked; nothing here can panic or loop for ever on bytes
//! that only claim to be BTF.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Anonymous structures nest this deep at most.
const DEPTH: u32 = 16;
/// Typedefs and qualifiers chain this far at most.
const CHAIN: u32 = 32;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    #[error(
        "kernel type information starts with {found:#06x}, expected {MAGIC:#06x} (BTF of this machine's byte order)"
    )]
    Magic { found: u16 },
    #[error("kernel type information ends at byte {len}, expected {what} at {at}")]
    Truncated {
        what: &'static str,
        at: usize,
        len: usize,
    },
    #[error("kernel type {id} is of kind {kind}, which is not known")]
    Kind { id: u32, kind: u32 },
}

/// One type: its place in the bytes.
#[derive(Debug, Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size or type id, by kind.
    size: u32,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

/// A member of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Id of the member's type.
    pub type_id: u32,
}

/// A parsed BTF blob.
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts; the type of id 1 stands first.
    types: Vec<usize>,
    /// Structures by name. The first of a name wins, as in libbpf.
    structs: HashMap<&'a [u8], u32>,
    typedefs: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// # Errors
    /// If the bytes are no BTF of this machine's byte order, end early, or hold a kind of type that came later.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let magic = bytes
            .get(..2)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes);
        match magic {
            Some(MAGIC) => {}
            found => {
                return Err(BtfError::Magic {
                    found: found.unwrap_or(0),
                });
            }
        }
        let header_len = word(bytes, 4, "header length")? as usize;
        let section = |at: usize, what: &'static str| -> Result<&'a [u8], BtfError> {
            let start = header_len.checked_add(word(bytes, at, what)? as usize);
            let end = start.and_then(|s| s.checked_add(word(bytes, at + 4, what).ok()? as usize));
            match (start, end) {
                (Some(s), Some(e)) if header_len >= HEADER_LEN => bytes.get(s..e),
                _ => None,
            }
            .ok_or(BtfError::Truncated {
                what,
                at: end.unwrap_or(usize::MAX),
                len: bytes.len(),
            })
        };
        let mut btf = Self {
            bytes: section(8, "types")?,
            strings: section(16, "strings")?,
            types: Vec::new(),
            structs: HashMap::new(),
            typedefs: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.bytes.len() {
            let id = self.types.len() as u32 + 1;
            let t = self.type_at(at)?;
            let tail = match t.kind() {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * t.count(),
                KIND_ENUM | KIND_FUNC_PROTO => 8 * t.count(),
                1..KIND_ENUM64 => 0,
                kind => return Err(BtfError::Kind { id, kind }),
            };
            match t.kind() {
                KIND_STRUCT if t.name != 0 => _ = self.structs.entry(self.text(t.name)).or_insert(id),
                KIND_TYPEDEF => _ = self.typedefs.entry(self.text(t.name)).or_insert(id),
                _ => {}
            }
            self.types.push(at);
            at += 12 + tail;
        }
        if at == self.bytes.len() {
            Ok(())
        } else {
            Err(BtfError::Truncated {
                what: "the last type",
                at,
                len: self.bytes.len(),
            })
        }
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        Ok(Type {
            at,
            name: word(self.bytes, at, "a type")?,
            info: word(self.bytes, at + 4, "a type")?,
            size: word(self.bytes, at + 8, "a type")?,
        })
    }

    /// `None` for `void` and for ids that do not exist.
    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.types.get((id as usize).checked_sub(1)?)?;
        self.type_at(at).ok()
    }

    fn text(&self, at: u32) -> &'a [u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// The type behind typedefs and qualifiers.
    fn bare(&self, id: u32) -> Option<Type> {
        let mut t = self.get(id)?;
        for _ in 0..CHAIN {
            match t.kind() {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    t = self.get(t.size)?
                }
                _ => return Some(t),
            }
        }
        None
    }

    /// Bytes that a structure takes.
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        self.get(*self.structs.get(name.as_bytes())?).map(|t| t.size)
    }

    /// A member by the names that lead to it: `"f_path.dentry"`; anonymous structures and unions need no name.
    /// `a|b` names alternatives, of which the first that exists counts. Bit-fields are never found.
    pub fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let id = *self.structs.get(structure.as_bytes())?;
        path.split('|').find_map(|path| self.walk(id, path))
    }

    fn walk(&self, id: u32, path: &str) -> Option<Member> {
        let mut found = Member {
            offset: 0,
            type_id: id,
        };
        for name in path.split('.') {
            let next = self.named(self.bare(found.type_id)?, name.as_bytes(), DEPTH)?;
            found = Member {
                offset: found.offset.checked_add(next.offset)?,
                type_id: next.type_id,
            };
        }
        Some(found)
    }

    fn named(&self, of: Type, name: &[u8], depth: u32) -> Option<Member> {
        if !matches!(of.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let has_bit_fields = of.info >> 31 == 1;
        for index in 0..of.count() {
            let at = of.at + 12 + 12 * index;
            let member_name = self.text(word(self.bytes, at, "a member").ok()?);
            let type_id = word(self.bytes, at + 4, "a member").ok()?;
            let place = word(self.bytes, at + 8, "a member").ok()?;
            let (bits, is_bit_field) = if has_bit_fields {
                (place & 0xff_ffff, place >> 24 != 0)
            } else {
                (place, false)
            };
            if member_name == name && !is_bit_field && bits.is_multiple_of(8) {
                return Some(Member {
                    offset: bits / 8,
                    type_id,
                });
            }
            if member_name.is_empty()
                && depth > 0
                && let Some(inner) = self.bare(type_id).and_then(|t| self.named(t, name, depth - 1))
            {
                return Some(Member {
                    offset: (bits / 8).checked_add(inner.offset)?,
                    type_id: inner.type_id,
                });
            }
        }
        None
    }

    /// The id of a function's type. Looks at every type: for one or two questions.
    pub fn function(&self, name: &str) -> Option<u32> {
        (1..=u32::try_from(self.types.len()).ok()?).find(|id| {
            self.get(*id)
                .is_some_and(|t| t.kind() == KIND_FUNC && self.text(t.name) == name.as_bytes())
        })
    }

    /// Whether a member is an array.
    pub fn is_array(&self, member: Member) -> bool {
        self.bare(member.type_id).is_some_and(|t| t.kind() == KIND_ARRAY)
    }

    /// Whether the first argument of a tracepoint is a pointer. `None`: the kernel has no such tracepoint.
    pub fn tracepoint_takes_pointer(&self, tracepoint: &str) -> Option<bool> {
        let name = format!("btf_trace_{tracepoint}");
        // typedef void (*btf_trace_NAME)(void *data, first argument, …)
        let pointer = self.bare(*self.typedefs.get(name.as_bytes())?)?;
        let function = self.bare(pointer.size).filter(|_| pointer.kind() == KIND_PTR)?;
        if function.kind() != KIND_FUNC_PROTO || function.count() < 2 {
            return None;
        }
        let first = word(self.bytes, function.at + 12 + 8 + 4, "an argument").ok()?;
        Some(self.bare(first).is_some_and(|t| t.kind() == KIND_PTR))
    }
}

fn word(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, BtfError> {
    at.checked_add(4)
        .and_then(|end| bytes.get(at..end))
        .and_then(|b| b.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Truncated {
            what,
            at,
            len: bytes.len(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int flag : 1; union { int b; int c; }; }; struct outer *next; }`
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0flag\0b\0c\0next\0";
        let name = |text: &str| {
            let needle: Vec<u8> = [b"\0", text.as_bytes(), b"\0"].concat();
            strings.windows(needle.len()).position(|w| w == needle).unwrap() as u32 + 1
        };
        let mut types = Vec::new();
        let mut put = |words: &[u32]| words.iter().for_each(|w| types.extend(w.to_ne_bytes()));
        put(&[name("int"), KIND_INT << 24, 4, 32]); // 1
        put(&[0, KIND_UNION << 24 | 2, 4, name("b"), 1, 0, name("c"), 1, 0]); // 2
        put(&[
            0,
            1 << 31 | KIND_STRUCT << 24 | 2,
            8,
            name("flag"),
            1,
            1 << 24,
            0,
            2,
            32,
        ]); // 3
        put(&[
            name("outer"),
            KIND_STRUCT << 24 | 3,
            24,
            name("a"),
            1,
            0,
            0,
            3,
            32,
            name("next"),
            5,
            128,
        ]); // 4
        put(&[0, KIND_PTR << 24, 4]); // 5
        let mut blob = Vec::new();
        blob.extend(MAGIC.to_ne_bytes());
        blob.extend([1, 0]);
        for w in [HEADER_LEN, 0, types.len(), types.len(), strings.len()] {
            blob.extend((w as u32).to_ne_bytes());
        }
        blob.extend(&types);
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_through_anonymous_ones() {
        let blob = sample();
        let btf = Btf::parse(&blob).unwrap();
        let offset = |path| btf.member("outer", path).map(|m| m.offset);
        assert_eq!(offset("a"), Some(0));
        assert_eq!(offset("c"), Some(8));
        assert_eq!(offset("next"), Some(16));
        assert_eq!(offset("gone|next"), Some(16));
        assert_eq!(offset("flag"), None, "a bit-field has no byte offset");
        assert_eq!(offset("gone"), None);
        assert_eq!(btf.struct_size("outer"), Some(24));
    }

    #[test]
    fn any_cut_and_any_changed_byte_ends_in_an_answer() {
        let blob = sample();
        for len in 0..blob.len() {
            assert!(Btf::parse(&blob[..len]).is_err(), "{len} bytes");
        }
        for at in 0..blob.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = blob.clone();
                changed[at] = value;
                if let Ok(btf) = Btf::parse(&changed) {
                    let _ = btf.member("outer", "c");
                    let _ = btf.member("outer", "next.next.a");
                    let _ = btf.tracepoint_takes_pointer("outer");
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_refused_with_a_reason() {
        let error = Btf::parse(b"\x7fELF").err().unwrap();
        assert!(
            error.to_string().contains("BTF of this machine's byte order"),
            "{error}"
        );
    }
}
