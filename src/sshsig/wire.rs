//! The wire format of SSH (RFC 4251, section 5): lengths, strings and numbers, read strictly.
//!
//! A part of `sshsig`. Bounded by the bytes that it is given; never allocates for a length that somebody claims.

use super::SshError;

/// Reads one value after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], SshError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(SshError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, SshError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u32, SshError> {
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| SshError::Malformed)?;
        Ok(u32::from_be_bytes(bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], SshError> {
        let length = usize::try_from(self.number()?).map_err(|_| SshError::Malformed)?;
        self.take(length)
    }

    /// A string of this length.
    pub(super) fn exactly(&mut self, bytes: usize) -> Result<&'a [u8], SshError> {
        let string = self.string()?;
        if string.len() == bytes { Ok(string) } else { Err(SshError::Malformed) }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, SshError> {
        std::str::from_utf8(self.string()?).map_err(|_| SshError::Malformed)
    }

    /// A positive number of any length, without the zero that keeps it positive.
    pub(super) fn positive(&mut self) -> Result<&'a [u8], SshError> {
        let string = self.string()?;
        match string {
            [0, first, ..] if first & 0x80 != 0 => Ok(&string[1..]),
            [first, ..] if (1..0x80).contains(first) => Ok(string),
            // Zero, a negative number, or one with zeros before it.
            _ => Err(SshError::Malformed),
        }
    }

    /// Nothing follows.
    pub(super) fn end(&self) -> Result<(), SshError> {
        if self.rest.is_empty() { Ok(()) } else { Err(SshError::Malformed) }
    }
}

/// Appends a string.
pub(super) fn put_string(to: &mut Vec<u8>, string: &[u8]) -> Result<(), SshError> {
    let length = u32::try_from(string.len()).map_err(|_| SshError::TooLong)?;
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(string);
    Ok(())
}
