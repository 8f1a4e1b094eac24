use super::*;

#[test]
fn every_store_belongs_to_one_part() {
    for total in 1..6 {
        for store in 0..50 {
            let parts = (1..=total).filter(|&index| Shard { index, total }.has(StoreId(store)));
            assert_eq!(parts.count(), 1, "store {store} of {total}");
        }
    }
    let none = Shard { index: 0, total: 3 };
    assert!((0..50).all(|store| !none.has(StoreId(store))));
}
