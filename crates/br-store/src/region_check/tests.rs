use br_codec::{ApiVersion, key};
use br_types::StoreId;

use super::*;
use crate::{
    testing::{Fixture, simulate},
    topology::Topology,
};

const REGION: RegionId = RegionId(2);

fn none() -> std::iter::Empty<EncodedKey> {
    std::iter::empty()
}

/// The region error of a request that the change made wrong.
fn refused(change: impl FnOnce(&Fixture, &mut kvrpcpb::Context)) -> errorpb::Error {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let mut context = fixture.context(REGION);
        change(&fixture, &mut context);
        match check(&fixture.store, Some(&context), Access::Write, none()) {
            Err(Reject::Region(error)) => *error,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn each_mistake_has_its_error() {
    let error = refused(|_, context| context.peer.as_mut().unwrap().store_id = 9);
    assert_eq!(error.store_not_match.unwrap().actual_store_id, 1);
    let error = refused(|_, context| context.region_id = 77);
    assert_eq!(error.region_not_found.unwrap().region_id, 77);
    let error = refused(|_, context| context.peer.as_mut().unwrap().id = 55);
    assert_eq!(error.mismatch_peer_id.unwrap().store_peer_id, 3);
    let error = refused(|fixture, _| fixture.topology.move_leader(REGION, StoreId(2)));
    let not_leader = error.not_leader.unwrap();
    assert_eq!(
        (not_leader.region_id, not_leader.leader.unwrap().store_id),
        (2, 2)
    );
}

#[test]
fn an_old_epoch_gets_the_regions_of_its_keys() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let old = fixture.context(REGION);
        let (b, m) = (key::encode(b"b"), key::encode(b"m"));
        fixture
            .topology
            .split(REGION, 1, &[key::encode(b"c"), m.clone()])
            .unwrap();
        let keys = [b.clone(), m.clone()];
        let Err(Reject::Region(error)) =
            check(&fixture.store, Some(&old), Access::Write, keys.into_iter())
        else {
            panic!("accepted");
        };
        let regions = error.epoch_not_match.unwrap().current_regions;
        assert_eq!(regions.len(), 2);
        assert_eq!(
            (regions[0].id, &regions[0].start_key),
            (2, &m.as_bytes().to_vec())
        );
        assert_eq!(regions[1].end_key, key::encode(b"c").as_bytes());
        // Only the version of the epoch counts.
        let mut new = fixture.context(REGION);
        new.region_epoch.as_mut().unwrap().conf_ver = 99;
        check(
            &fixture.store,
            Some(&new),
            Access::Write,
            std::iter::once(m),
        )
        .unwrap();
        let Err(Reject::Region(error)) = check(
            &fixture.store,
            Some(&new),
            Access::Write,
            std::iter::once(b),
        ) else {
            panic!("accepted");
        };
        assert_eq!(error.key_not_in_region.unwrap().region_id, 2);
        // Taking files in needs all of it.
        assert!(check_exact_epoch(&fixture.store, &new).is_err());
        assert!(check_exact_epoch(&fixture.store, &fixture.context(REGION)).is_ok());
    });
}

#[test]
fn followers_read_when_asked_to() {
    simulate(async |rt| {
        let mut fixture = Fixture::new(&rt, ApiVersion::V1);
        fixture.store.store_id = StoreId(2);
        let mut context = fixture.context(REGION);
        context.peer = Some(metapb::Peer {
            id: 4,
            store_id: 2,
            ..Default::default()
        });
        assert!(check(&fixture.store, Some(&context), Access::Read, none()).is_err());
        context.replica_read = true;
        assert!(check(&fixture.store, Some(&context), Access::Read, none()).is_ok());
        assert!(check(&fixture.store, Some(&context), Access::Write, none()).is_err());
    });
}

#[test]
fn another_cluster_and_a_store_that_is_down_end_the_call() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let wrong = check_store(&fixture.store, 8).unwrap_err();
        assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
        check_store(&fixture.store, 7).unwrap();
        fixture.topology.set_down(StoreId(1));
        assert_eq!(
            check_store(&fixture.store, 7).unwrap_err().code(),
            tonic::Code::Unavailable
        );
    });
}
