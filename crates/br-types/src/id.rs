use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Id of a cluster, chosen by PD at its first start; never 0.
    ClusterId,
    u64
);
id!(
    /// Id of a region.
    RegionId,
    u64
);
id!(
    /// Id of a store.
    StoreId,
    u64
);
id!(
    /// Id of a peer: one replica of one region.
    PeerId,
    u64
);
id!(
    /// Id of a TiDB database.
    DbId,
    i64
);
id!(
    /// Id of a TiDB table or partition: what stands in its keys.
    TableId,
    i64
);
id!(
    /// Id of an index within its table.
    IndexId,
    i64
);
