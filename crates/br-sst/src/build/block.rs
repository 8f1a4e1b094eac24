use crate::varint::push_u64;

/// A block under construction.
pub(super) struct BlockBuilder {
    restart_interval: usize,
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entries_since_restart: usize,
}

impl BlockBuilder {
    pub(super) fn new(restart_interval: usize) -> BlockBuilder {
        BlockBuilder {
            restart_interval,
            bytes: Vec::new(),
            restarts: Vec::new(),
            entries_since_restart: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that it has when it is finished now.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len() + 4 * (self.restarts.len() + 1)
    }

    /// Adds an entry whose key is `key` and then `suffix`; `last` is the whole key before it.
    pub(super) fn add(&mut self, last: &[u8], key: &[u8], suffix: &[u8], value: &[u8]) {
        let is_restart =
            self.bytes.is_empty() || self.entries_since_restart >= self.restart_interval;
        let shared = match is_restart {
            true => {
                // Blocks are closed long before their length needs more than 32 bits.
                self.restarts.push(self.bytes.len() as u32);
                self.entries_since_restart = 0;
                0
            }
            false => common_len(last, key),
        };
        let rest = key.get(shared..).unwrap_or_default();
        push_u64(&mut self.bytes, shared as u64);
        push_u64(&mut self.bytes, (rest.len() + suffix.len()) as u64);
        push_u64(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);
        self.entries_since_restart += 1;
    }

    /// The block; the builder is empty then.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let count = self.restarts.len() as u32;
        self.bytes.extend_from_slice(&count.to_le_bytes());
        self.restarts.clear();
        self.entries_since_restart = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Takes the room of a finished block back.
    pub(super) fn reuse(&mut self, mut block: Vec<u8>) {
        block.clear();
        self.bytes = block;
    }
}

/// How many bytes two keys have in common at their beginning.
fn common_len(a: &[u8], b: &[u8]) -> usize {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    for (at, (a, b)) in a_words.iter().zip(b_words).enumerate() {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return at * 8 + difference.trailing_zeros() as usize / 8;
        }
    }
    let at = a_words.len().min(b_words.len()) * 8;
    let (a, b) = (
        a.get(at..).unwrap_or_default(),
        b.get(at..).unwrap_or_default(),
    );
    at + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
