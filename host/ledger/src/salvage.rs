//! Finds every whole record of a segment, also behind damage: for [`crate::verify`] and [`crate::repair`].
//!
//! Where bytes are not what they should be it searches on, byte by byte, for the next head whose checksum agrees. The
//! checksums start from the segment's random salt, so that nothing inside a body can pass for a head.

use std::{ops::Range, path::Path};

use crate::{
    Error, Seq,
    frame::{self, GROUP_HEADER, GroupHeader, Head, RECORD_FIXED, SegmentHeader},
    mark::Position,
    segment,
};

/// What a segment's bytes turn out to be, in order.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record and its body's bytes; with the error when its hash does not agree.
    Record(Box<Head>, Range<usize>, Option<Error>),
    /// Bytes that are nothing; `seq` should have been there.
    Damage { offset: usize, seq: Seq },
}

/// Walks the bytes of a segment after a record whose place and hash are `start`.
pub(crate) fn salvage(
    path: &Path,
    header: &SegmentHeader,
    bytes: &[u8],
    start: Position,
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut end = start;
    let mut at = frame::SEGMENT_HEADER;
    let salt = header.salt;
    // Nothing but zeros comes after the last byte that is not one.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let mut hole: Option<usize> = None;
    while at < used {
        if group_at(bytes, at, salt, end.seq) {
            at += GROUP_HEADER;
            continue;
        }
        let Some((head, body)) = record_at(bytes, at, salt, end.seq) else {
            hole.get_or_insert(at);
            at = next_candidate(bytes, at + 1, used, salt, end.seq);
            continue;
        };
        if let Some(offset) = hole.take() {
            found.push(Found::Damage {
                offset,
                seq: end.seq.next(),
            });
        }
        at = body.end;
        let follows = head.seq == end.seq.next();
        let error = segment::check(
            path,
            (body.start - head.len()) as u64,
            &head,
            &end.hash,
            &bytes[body.clone()],
        );
        end = Position {
            seq: head.seq,
            hash: head.hash,
        };
        // Behind a hole the hash of the record before is not known: the head's checksum, which covers the hash, must do.
        let error = error.err().filter(|_| follows);
        found.push(Found::Record(Box::new(head), body, error));
    }
    if let Some(offset) = hole {
        found.push(Found::Damage {
            offset,
            seq: end.seq.next(),
        });
    }
    found
}

fn group_at(bytes: &[u8], at: usize, salt: u32, last: Seq) -> bool {
    bytes
        .get(at..at + GROUP_HEADER)
        .and_then(|header| GroupHeader::decode(header, salt))
        .is_some_and(|group| group.first > last)
}

fn record_at(bytes: &[u8], at: usize, salt: u32, last: Seq) -> Option<(Head, Range<usize>)> {
    let rest = bytes.get(at..)?;
    // A cheap look before the checksum: most bytes of a search are no head.
    let lengths = rest.get(28..RECORD_FIXED)?;
    if lengths[1] != 0 || lengths[0] == 0 || lengths[3] > 4 || lengths[5] > 4 {
        return None;
    }
    let head = frame::decode_head(rest, salt)?;
    let body = at + head.len()..at + head.len() + head.body_len;
    (head.seq > last && body.end <= bytes.len()).then_some((head, body))
}

fn next_candidate(bytes: &[u8], from: usize, used: usize, salt: u32, last: Seq) -> usize {
    (from..used)
        .find(|at| group_at(bytes, *at, salt, last) || record_at(bytes, *at, salt, last).is_some())
        .unwrap_or(used)
}
