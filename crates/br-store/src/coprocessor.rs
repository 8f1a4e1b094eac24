//! The coprocessor: table checksums, and nothing else.
//!
//! Source: `coprocessor.proto`, `tipb` checksum messages; TiKV `coprocessor/checksum.rs`.

use br_codec::{Crc64, key};
use br_proto::{coprocessor, kvrpcpb::Context, tipb};
use br_types::{EncodedKey, KeyRange, RawKey, TimeStamp};
use prost::Message;
use tonic::Status;

use crate::{
    context::StoreContext,
    mvcc::{Direction, MvccError, ReadContext},
    region_check::{Access, Reject, check, key_not_in_region},
    storage::Storage,
    topology::RegionState,
};

/// The type of a checksum request.
const CHECKSUM: i64 = 105;

/// Why a request is not answered with data.
#[derive(Debug)]
enum Refusal {
    Mvcc(MvccError),
    Other(String),
}

impl From<MvccError> for Refusal {
    fn from(error: MvccError) -> Refusal {
        Refusal::Mvcc(error)
    }
}

/// Serves a request.
///
/// # Errors
/// A status when the store is down or the request is for another cluster.
pub(crate) async fn coprocess(
    store: &StoreContext,
    request: coprocessor::Request,
) -> Result<coprocessor::Response, Status> {
    let ranges: Vec<KeyRange<EncodedKey>> = request
        .ranges
        .iter()
        .map(|range| key::encode_range(&KeyRange::<RawKey>::new(&range.start[..], &range.end[..])))
        .collect();
    let starts: Vec<EncodedKey> = ranges.iter().map(|range| range.start.clone()).collect();
    let starts = starts.into_iter().filter(|start| !start.is_empty());
    let state = match check(store, request.context.as_ref(), Access::Read, starts) {
        Ok(state) => state,
        Err(Reject::Status(status)) => return Err(status),
        Err(Reject::Region(error)) => {
            let region_error = Some(*error);
            return Ok(coprocessor::Response {
                region_error,
                ..Default::default()
            });
        }
    };
    if let Some(error) = leaves_region(&ranges, &state) {
        return Ok(coprocessor::Response {
            region_error: Some(error),
            ..Default::default()
        });
    }
    if request.tp != CHECKSUM {
        return Ok(other_error(format!("unsupported tp {}", request.tp)));
    }
    let storage = store.storage.clone();
    let result = store
        .rt
        .blocking(move || checksum(&storage, &request, &ranges))
        .await;
    Ok(match result {
        Ok(answer) => coprocessor::Response {
            data: answer.encode_to_vec(),
            ..Default::default()
        },
        Err(Refusal::Other(text)) => other_error(text),
        Err(Refusal::Mvcc(error)) => match error.key_error().locked {
            Some(locked) => coprocessor::Response {
                locked: Some(locked),
                ..Default::default()
            },
            None => other_error(error.to_string()),
        },
    })
}

fn other_error(text: String) -> coprocessor::Response {
    coprocessor::Response {
        other_error: text,
        ..Default::default()
    }
}

/// Data of a range that leaves the region would be left out without a word.
fn leaves_region(
    ranges: &[KeyRange<EncodedKey>],
    state: &RegionState,
) -> Option<br_proto::errorpb::Error> {
    let region = state.range();
    let outside = ranges.iter().find(|range| !region.covers(range))?;
    let key = if region.contains(&outside.start) {
        &outside.end
    } else {
        &outside.start
    };
    Some(key_not_in_region(key, &state.region))
}

fn checksum(
    storage: &Storage,
    request: &coprocessor::Request,
    ranges: &[KeyRange<EncodedKey>],
) -> Result<tipb::ChecksumResponse, Refusal> {
    let wanted = tipb::ChecksumRequest::decode(&request.data[..])
        .map_err(|error| Refusal::Other(format!("not a checksum request: {error}")))?;
    let start_ts = match request.start_ts {
        0 => wanted.start_ts_fallback(),
        start_ts => start_ts,
    };
    let context = request.context.clone().unwrap_or_default();
    let rule = wanted.rule.unwrap_or_default();
    let mut sum = Sum::new(rule.old_prefix(), rule.new_prefix());
    for range in ranges {
        sum.add_range(storage, range, TimeStamp(start_ts), &context)?;
    }
    Ok(tipb::ChecksumResponse {
        checksum: Some(sum.crc64xor),
        total_kvs: Some(sum.kvs),
        total_bytes: Some(sum.bytes),
    })
}

/// The checksum so far, as if each key still had its old prefix.
struct Sum<'r> {
    seed: Crc64,
    old_prefix: &'r [u8],
    new_prefix: &'r [u8],
    crc64xor: u64,
    kvs: u64,
    bytes: u64,
}

impl<'r> Sum<'r> {
    fn new(old_prefix: &'r [u8], new_prefix: &'r [u8]) -> Sum<'r> {
        let mut seed = Crc64::new();
        seed.update(old_prefix);
        Sum {
            seed,
            old_prefix,
            new_prefix,
            crc64xor: 0,
            kvs: 0,
            bytes: 0,
        }
    }

    fn add_range(
        &mut self,
        storage: &Storage,
        range: &KeyRange<EncodedKey>,
        ts: TimeStamp,
        context: &Context,
    ) -> Result<(), Refusal> {
        let view = storage.read_range(range, ReadContext::new(ts, Some(context)))?;
        let mut pairs = view.scan(Direction::Forward, false)?;
        while let Some(pair) = pairs.next()? {
            let Some(rest) = pair.key.strip_prefix(self.new_prefix) else {
                let prefix = RawKey::from(self.new_prefix);
                return Err(Refusal::Other(format!("Wrong prefix expect: {prefix}")));
            };
            let mut crc = self.seed.clone();
            crc.update(rest);
            crc.update(pair.value);
            self.crc64xor ^= crc.value();
            self.kvs += 1;
            self.bytes += (self.old_prefix.len() + rest.len() + pair.value.len()) as u64;
        }
        Ok(())
    }
}
