use std::fmt;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Vec<u8>);

        impl $name {
            /// The key with these bytes.
            pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
                Self(bytes.into())
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The bytes, owned.
            pub fn into_bytes(self) -> Vec<u8> {
                self.0
            }

            /// Whether there are no bytes; as a bound of a range, no bound.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// The number of bytes.
            pub fn len(&self) -> usize {
                self.0.len()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        /// Upper-case hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes)
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes.to_vec())
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

key!(
    /// A key as the user of a store wrote it: no memcomparable encoding, no timestamp, no `z`.
    RawKey
);
key!(
    /// A key as regions and PD know it: memcomparable for transactional and API v2 data, the raw
    /// bytes for raw data of API v1; no timestamp, no `z`.
    EncodedKey
);
key!(
    /// A key as it lies in a store's engine and in SST files: `z`, the encoded key, and for the
    /// write and default column families of transactional data the inverted timestamp.
    DataKey
);

impl RawKey {
    /// The least key that is greater than every key with this prefix; empty if there is none.
    #[must_use]
    pub fn prefix_end(&self) -> RawKey {
        let mut bytes = self.0.clone();
        while let Some(last) = bytes.last_mut() {
            if *last < 0xFF {
                *last += 1;
                return RawKey(bytes);
            }
            bytes.pop();
        }
        RawKey(bytes)
    }

    /// The least key greater than this one.
    #[must_use]
    pub fn successor(&self) -> RawKey {
        let mut bytes = self.0.clone();
        bytes.push(0);
        RawKey(bytes)
    }
}
