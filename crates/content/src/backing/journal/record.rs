//! What a journal file holds: records, one for each batch, one behind the other, without I/O.
//!
//! A record is, in little endian: [`MAGIC`], the length of its body and the CRC-32 of its number and body (32 bits each),
//! its number (64 bits), its body. The body is the roots, behind their length (32 bits), as [`Roots::encode`] writes them, then
//! the blobs, each behind the length of its digest (8 bits), which tells the algorithm, and its own (32 bits).
//!
//! Files are written again from their beginning, so behind the last record there may be older ones: numbers tell.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::roots::Roots;
use crate::{BlobRef, HashAlg};

/// The first four bytes of a record.
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"fxj1");
/// Bytes before the body.
const HEADER: usize = 20;

/// A batch, as it was acknowledged.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) blobs: Vec<(BlobRef, Bytes)>,
    pub(super) roots: Roots,
}

fn checksum(number_and_body: &[u8]) -> u32 {
    crc32fast::hash(number_and_body)
}

/// The bytes of a record; `None` if it is too large for one.
pub(super) fn encode(number: u64, blobs: &[(BlobRef, Bytes)], roots: &Roots) -> Option<Bytes> {
    let roots = roots.encode();
    let size: usize = blobs.iter().map(|(_, data)| 5 + data.len()).sum();
    let length = u32::try_from(4 + roots.len() + size).ok()?;
    let mut out = BytesMut::with_capacity(HEADER + length as usize);
    out.put_u32_le(MAGIC);
    out.put_u32_le(length);
    out.put_u32_le(0);
    out.put_u64_le(number);
    out.put_u32_le(roots.len() as u32);
    out.put_slice(&roots);
    for (blobref, data) in blobs {
        out.put_u8(blobref.alg().digest_len() as u8);
        out.put_u32_le(data.len() as u32);
        out.put_slice(data);
    }
    let sum = checksum(&out[12..]);
    out[8..12].copy_from_slice(&sum.to_le_bytes());
    Some(out.freeze())
}

/// All records of a file that belong together, from its beginning.
pub(super) fn read(mut file: Bytes) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    while let Some(record) = next(&mut file) {
        if records
            .last()
            .is_some_and(|r| r.number + 1 != record.number)
        {
            break;
        }
        records.push(record);
    }
    records
}

fn next(file: &mut Bytes) -> Option<Record> {
    if file.try_get_u32_le().ok()? != MAGIC {
        return None;
    }
    let length = file.try_get_u32_le().ok()? as usize;
    let sum = file.try_get_u32_le().ok()?;
    if file.len() < 8 + length || checksum(&file[..8 + length]) != sum {
        return None;
    }
    let number = file.try_get_u64_le().ok()?;
    let mut body = file.split_to(length);
    let length = body.try_get_u32_le().ok()? as usize;
    let roots = Roots::decode(&part(&mut body, length)?).ok()?;
    let mut blobs = Vec::new();
    while body.has_remaining() {
        let digest = body.try_get_u8().ok()? as usize;
        let algs = [HashAlg::Sha1, HashAlg::Sha256];
        let alg = algs.into_iter().find(|alg| alg.digest_len() == digest)?;
        let length = body.try_get_u32_le().ok()? as usize;
        let data = part(&mut body, length)?;
        blobs.push((alg.hash(&data), data));
    }
    Some(Record {
        number,
        blobs,
        roots,
    })
}

fn part(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (body.remaining() >= length).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    type Batch = (Vec<(bool, Vec<u8>)>, Option<u32>);

    fn record(number: u64, (blobs, root): Batch) -> Record {
        let alg = |long| match long {
            true => HashAlg::Sha256,
            false => HashAlg::Sha1,
        };
        let blobs = blobs.into_iter().map(|(long, data)| {
            let data = Bytes::from(data);
            (alg(long).hash(&data), data)
        });
        Record {
            number,
            blobs: blobs.collect(),
            roots: root.map_or_else(Roots::default, |n| Roots::of("primary", json!(n))),
        }
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let encode = |r: &Record| encode(r.number, &r.blobs, &r.roots).unwrap();
        records.iter().map(encode).flat_map(Vec::from).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_whole_is_read(batches: Vec<Batch>, first in 1..u64::MAX / 2, cut: prop::sample::Index) {
            let numbered = batches.into_iter().zip(first..);
            let records: Vec<_> = numbered.map(|(batch, number)| record(number, batch)).collect();
            let whole = file(&records);
            prop_assert_eq!(&read(whole.clone().into()), &records);
            let cut = cut.index(whole.len() + 1);
            let found = read(whole[..cut].to_vec().into());
            prop_assert_eq!(&found[..], &records[..found.len()]);
            let next = file(&records[..(found.len() + 1).min(records.len())]).len();
            prop_assert!(cut == whole.len() || cut < next);
        }

        #[test]
        fn damage_ends_it(batch: Batch, at: prop::sample::Index, bit in 0..8) {
            let mut bytes = file(&[record(7, batch)]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(read(bytes.into()), []);
        }

        #[test]
        fn junk_is_no_record(junk: Vec<u8>) {
            let mut bytes = MAGIC.to_le_bytes().to_vec();
            bytes.extend(junk);
            prop_assert_eq!(read(bytes.into()), []);
        }
    }

    #[test]
    fn older_records_behind_the_last_are_not_read() {
        let batch = || (vec![(false, b"x".to_vec())], Some(1));
        let (old, new) = ([3, 4, 5], [8, 9]);
        let mut bytes = file(&old.map(|n| record(n, batch())));
        let newer = file(&new.map(|n| record(n, batch())));
        bytes[..newer.len()].copy_from_slice(&newer);
        let numbers: Vec<_> = read(bytes.into()).iter().map(|r| r.number).collect();
        assert_eq!(numbers, new);
    }
}
