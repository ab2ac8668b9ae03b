//! The box structure: typed, sized, nested stretches of bytes.

use std::fmt;

use super::Mp4Error;

/// The type of a box or of a sample format: four bytes, mostly letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes of a box header with a 32-bit size.
pub(super) const HEADER_BYTES: u64 = 8;
/// Bytes of a box header with a 64-bit size.
pub(super) const LARGE_HEADER_BYTES: u64 = 16;

/// One box inside bytes that are in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atom<'a> {
    pub(super) kind: FourCc,
    /// With its header.
    pub(super) whole: &'a [u8],
    /// Without its header.
    pub(super) body: &'a [u8],
}

impl<'a> Atom<'a> {
    /// The boxes inside this one.
    pub(super) fn children(&self) -> Children<'a> {
        children(self.kind, self.body)
    }

    /// The first box of this kind inside this one.
    pub(super) fn child(&self, kind: [u8; 4]) -> Result<Option<Self>, Mp4Error> {
        self.children().find_kind(kind)
    }

    /// As [`Self::child`], for a box that has to be there.
    pub(super) fn require(&self, kind: [u8; 4]) -> Result<Self, Mp4Error> {
        self.child(kind)?.ok_or(Mp4Error::Missing(FourCc(kind)))
    }

    /// The body from its first byte.
    pub(super) fn cursor(&self) -> Cursor<'a> {
        Cursor {
            kind: self.kind,
            rest: self.body,
        }
    }
}

/// The boxes that follow each other in `bytes`; a cut one is an error of `parent`.
pub(super) fn children(parent: FourCc, bytes: &[u8]) -> Children<'_> {
    Children { parent, rest: bytes }
}

/// See [`children`].
pub(super) struct Children<'a> {
    parent: FourCc,
    rest: &'a [u8],
}

impl<'a> Children<'a> {
    /// The first box of this kind.
    pub(super) fn find_kind(self, kind: [u8; 4]) -> Result<Option<Atom<'a>>, Mp4Error> {
        for atom in self {
            let atom = atom?;
            if atom.kind == FourCc(kind) {
                return Ok(Some(atom));
            }
        }
        Ok(None)
    }

    fn split(&mut self) -> Option<Atom<'a>> {
        let mut header = Cursor {
            kind: self.parent,
            rest: self.rest,
        };
        let (size, kind) = (header.u32().ok()?, FourCc(header.array().ok()?));
        let size = match size {
            1 => usize::try_from(header.u64().ok()?).ok()?,
            size => usize::try_from(size).ok()?,
        };
        let header_bytes = self.rest.len() - header.rest.len();
        let whole = self.rest.get(..size)?;
        let body = whole.get(header_bytes..)?;
        self.rest = &self.rest[size..];
        Some(Atom { kind, whole, body })
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<Atom<'a>, Mp4Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.split().ok_or_else(|| {
            self.rest = &[];
            Mp4Error::Malformed(self.parent)
        }))
    }
}

/// Big-endian fields one after the other; the end of the bytes is an error of their box.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    kind: FourCc,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(kind: FourCc, bytes: &'a [u8]) -> Self {
        Self { kind, rest: bytes }
    }

    pub(super) fn malformed(&self) -> Mp4Error {
        Mp4Error::Malformed(self.kind)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Mp4Error> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Mp4Error::Malformed(self.kind))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Mp4Error> {
        let (head, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(Mp4Error::Malformed(self.kind))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn u8(&mut self) -> Result<u8, Mp4Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Mp4Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Mp4Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Mp4Error> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Mp4Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A field of 32 bits in version 0 of a box and of 64 bits from version 1 on.
    pub(super) fn versioned(&mut self, version: u8) -> Result<u64, Mp4Error> {
        if version == 0 {
            self.u32().map(u64::from)
        } else {
            self.u64()
        }
    }

    /// Version and flags, the first four bytes of a full box.
    pub(super) fn version_and_flags(&mut self) -> Result<(u8, u32), Mp4Error> {
        let [version, flags @ ..] = self.array::<4>()?;
        let [high, middle, low] = flags;
        Ok((version, u32::from_be_bytes([0, high, middle, low])))
    }
}

/// Appends a box whose body `fill` writes.
pub(super) fn put_box(
    out: &mut Vec<u8>,
    kind: [u8; 4],
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Mp4Error>,
) -> Result<(), Mp4Error> {
    let start = out.len();
    put_u32(out, 0);
    out.extend_from_slice(&kind);
    fill(out)?;
    let size = u32::try_from(out.len() - start).map_err(|_| Mp4Error::Limit("bytes of headers"))?;
    patch_u32(out, start, size);
    Ok(())
}

/// Appends a box that begins with a version and flags.
pub(super) fn put_full_box(
    out: &mut Vec<u8>,
    kind: [u8; 4],
    version: u8,
    flags: u32,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Mp4Error>,
) -> Result<(), Mp4Error> {
    put_box(out, kind, |out| {
        let [_, flags @ ..] = flags.to_be_bytes();
        out.push(version);
        out.extend_from_slice(&flags);
        fill(out)
    })
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32s(out: &mut Vec<u8>, values: impl IntoIterator<Item = u32>) {
    for value in values {
        put_u32(out, value);
    }
}

pub(super) fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Sets a field that was left open at `at`.
pub(super) fn patch_u32(out: &mut [u8], at: usize, value: u32) {
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The header of the payload box; small where it can be, because that is what every reader knows.
pub(super) fn put_mdat_header(out: &mut Vec<u8>, payload_bytes: u64) -> Result<(), Mp4Error> {
    match u32::try_from(payload_bytes.saturating_add(HEADER_BYTES)) {
        Ok(size) => {
            put_u32(out, size);
            out.extend_from_slice(b"mdat");
            Ok(())
        }
        Err(_) => put_large_mdat_header(out, payload_bytes),
    }
}

/// The header of the payload box with a 64-bit size.
pub(super) fn put_large_mdat_header(out: &mut Vec<u8>, payload_bytes: u64) -> Result<(), Mp4Error> {
    let size = payload_bytes
        .checked_add(LARGE_HEADER_BYTES)
        .ok_or(Mp4Error::Limit("bytes of payload"))?;
    put_u32(out, 1);
    out.extend_from_slice(b"mdat");
    put_u64(out, size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: FourCc = FourCc(*b"moov");

    #[test]
    fn boxes_nest_and_are_found() {
        let mut bytes = Vec::new();
        put_box(&mut bytes, *b"free", |_| Ok(())).unwrap();
        put_box(&mut bytes, *b"trak", |out| {
            put_full_box(out, *b"tkhd", 1, 0x0002_0304, |_| Ok(()))
        })
        .unwrap();
        let trak = children(PARENT, &bytes).find_kind(*b"trak").unwrap().unwrap();
        assert_eq!(trak.whole.len(), 20);
        let tkhd = trak.require(*b"tkhd").unwrap();
        assert_eq!(tkhd.cursor().version_and_flags().unwrap(), (1, 0x0002_0304));
        assert!(trak.child(*b"edts").unwrap().is_none());
        assert!(matches!(trak.require(*b"edts"), Err(Mp4Error::Missing(FourCc(kind))) if &kind == b"edts"));
    }

    #[test]
    fn sizes_that_lie_are_errors_and_end_the_walk() {
        for bytes in [
            &b"\0\0\0\x09free"[..],
            b"\0\0\0\x07free",
            b"\0\0\0\0free",
            b"\0\0\0\x01free\0\0\0\0\0\0\0\x0f",
            b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff\xff\xff\xfffree",
            b"\0\0\0",
        ] {
            let walked: Vec<_> = children(PARENT, bytes).collect();
            assert!(matches!(walked[..], [Err(Mp4Error::Malformed(PARENT))]), "{bytes:?}");
        }
    }

    #[test]
    fn a_box_may_have_a_64_bit_size() {
        let bytes = b"\0\0\0\x01free\0\0\0\0\0\0\0\x11x\0\0\0\x08skip";
        let walked: Vec<_> = children(PARENT, bytes).map(Result::unwrap).collect();
        assert_eq!((walked[0].body, walked[1].kind), (&b"x"[..], FourCc(*b"skip")));
    }

    #[test]
    fn payload_beyond_4_gib_has_a_large_header() {
        let mut small = Vec::new();
        put_mdat_header(&mut small, u64::from(u32::MAX) - 8).unwrap();
        assert_eq!(small, b"\xff\xff\xff\xffmdat");
        let mut large = Vec::new();
        put_mdat_header(&mut large, u64::from(u32::MAX) - 7).unwrap();
        assert_eq!(large, b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\x08");
        assert!(put_mdat_header(&mut large, u64::MAX).is_err());
    }
}
