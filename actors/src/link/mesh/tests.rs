//! Tests of the mesh: which peers it dials and probes, and when.

use super::*;

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

fn peer(node: &str, incarnation: u64) -> PeerAddress {
    let (node, incarnation) = (
        NodeId::parse(node).unwrap(),
        Incarnation::new(incarnation).unwrap(),
    );
    PeerAddress {
        address: format!("{node}:7000"),
        node,
        incarnation,
    }
}

fn mesh() -> Mesh {
    Mesh::new(NodeId::parse("m").unwrap())
}

fn dials(steps: &[Step]) -> Vec<(String, u64)> {
    let dial = |step: &Step| match step {
        Step::Dial { peer, generation, .. } => Some((peer.node.to_string(), *generation)),
        Step::Probe(_) | Step::Forget(_) => None,
    };
    steps.iter().filter_map(dial).collect()
}

#[test]
fn the_smaller_id_dials_and_each_dial_has_a_higher_generation() {
    let mut mesh = mesh();
    let (smaller, larger) = (peer("a", 1), peer("z", 2));
    let dialled = larger.incarnation;
    mesh.know(at(0), vec![smaller, larger, peer("m", 3)]);
    assert_eq!(dials(&mesh.tick(at(0))), [("z".to_owned(), 1)]);
    assert!(dials(&mesh.tick(at(100))).is_empty(), "one attempt at a time");
    mesh.down(at(100), dialled, Cause::Failed);
    assert!(dials(&mesh.tick(at(100))).is_empty(), "not at once");
    assert_eq!(dials(&mesh.tick(at(1_000))), [("z".to_owned(), 2)]);
}

#[test]
fn pauses_grow_up_to_a_bound_and_a_link_that_lasts_resets_them() {
    let mut mesh = mesh();
    let z = peer("z", 2);
    let mut now = 0;
    let mut dialled_within = |mesh: &mut Mesh, millis: u64| {
        mesh.know(at(now), vec![z.clone()]);
        let mut count = 0;
        for _ in 0..millis / 10 {
            now += 10;
            for _ in dials(&mesh.tick(at(now))) {
                count += 1;
                mesh.down(at(now), z.incarnation, Cause::Failed);
            }
        }
        (count, now)
    };
    let (first, _) = dialled_within(&mut mesh, 2_000);
    assert!((3..=6).contains(&first), "{first} dials in the first two seconds");
    let (later, now_then) = dialled_within(&mut mesh, 9_000);
    assert!((1..=4).contains(&later), "{later} dials in nine seconds later");
    mesh.up(at(now_then), z.incarnation);
    mesh.know(at(now_then + 20_000), vec![peer("z", 2)]);
    mesh.down(at(now_then + 20_000), z.incarnation, Cause::Failed);
    assert_eq!(dials(&mesh.tick(at(now_then + 20_210))).len(), 1);
}

#[test]
fn a_flapping_link_does_not_reset_its_pauses() {
    let mut mesh = mesh();
    let z = peer("z", 2);
    let mut dialled = 0;
    for now in (0..9_000).step_by(10) {
        mesh.know(at(now), vec![z.clone()]);
        for _ in dials(&mesh.tick(at(now))) {
            dialled += 1;
            mesh.up(at(now), z.incarnation);
            mesh.down(at(now), z.incarnation, Cause::Failed);
        }
    }
    assert!(dialled <= 9, "{dialled} dials in nine seconds");
}

#[test]
fn mismatched_nodes_are_dialled_again_only_after_a_long_pause() {
    let mut mesh = mesh();
    let z = peer("z", 2);
    mesh.know(at(0), vec![z.clone()]);
    mesh.tick(at(0));
    mesh.down(at(0), z.incarnation, Cause::Mismatch);
    for now in (0..29_000).step_by(1_000) {
        mesh.know(at(now), vec![z.clone()]);
        assert!(dials(&mesh.tick(at(now))).is_empty());
    }
    mesh.know(at(46_000), vec![z, peer("z", 3)]);
    assert_eq!(
        dials(&mesh.tick(at(46_000))).len(),
        2,
        "its next incarnation is another peer"
    );
}

#[test]
fn only_a_recent_refusal_by_an_unlinked_peer_counts() {
    let mut mesh = mesh();
    let a = peer("a", 1);
    let refuses = |mesh: &Mesh, now: u64| mesh.view().refuses(at(now), Incarnation::new(1).unwrap());
    mesh.know(at(0), vec![a.clone()]);
    assert_eq!(mesh.tick(at(200)), [Step::Probe(a.clone())]);
    assert!(mesh.tick(at(900)).is_empty(), "one probe at a time");
    mesh.probed(at(900), a.incarnation, true);
    assert!(refuses(&mesh, 900) && refuses(&mesh, 1_899) && !refuses(&mesh, 1_900));
    assert_eq!(mesh.tick(at(1_000)), [Step::Probe(a.clone())]);
    mesh.probed(at(1_000), a.incarnation, false);
    assert!(!refuses(&mesh, 1_000));
    mesh.probed(at(1_100), a.incarnation, true);
    mesh.up(at(1_200), a.incarnation);
    assert!(!refuses(&mesh, 1_200));
    mesh.probed(at(1_300), a.incarnation, true);
    assert!(!refuses(&mesh, 1_300), "it is linked: the probe was late");
    assert_eq!(mesh.view().linked, [a.incarnation]);
}

#[test]
fn a_peer_that_is_no_longer_named_is_forgotten_after_a_while() {
    let mut mesh = mesh();
    let early = Incarnation::new(9).unwrap();
    // The peer linked before its row was read.
    mesh.up(at(0), early);
    assert!(mesh.tick(at(9_000)).is_empty());
    assert_eq!(mesh.tick(at(10_000)), [Step::Forget(early)]);
    assert!(mesh.view().linked.is_empty());
    // While the rows cannot be read, the peers that were named last stay named.
    let z = peer("z", 2);
    mesh.know(at(10_000), vec![z.clone()]);
    mesh.up(at(10_000), z.incarnation);
    assert!(mesh.tick(at(60_000)).is_empty());
    assert_eq!(mesh.view().linked, [z.incarnation]);
}

#[test]
fn a_peer_that_is_no_longer_named_is_neither_dialled_nor_probed() {
    let mut mesh = mesh();
    let (before, after) = (peer("z", 2), peer("z", 3));
    mesh.know(at(0), vec![before.clone()]);
    mesh.tick(at(0));
    mesh.up(at(100), before.incarnation);
    mesh.down(at(5_000), before.incarnation, Cause::Failed);
    mesh.know(at(5_100), vec![after.clone()]);
    assert_eq!(
        dials(&mesh.tick(at(5_100))),
        [("z".to_owned(), 2)],
        "only the next incarnation is dialled"
    );
    mesh.up(at(5_200), after.incarnation);
    for now in (5_200..20_000).step_by(100) {
        mesh.know(at(now), vec![after.clone()]);
        let steps = mesh.tick(at(now));
        assert!(
            steps.iter().all(|step| *step == Step::Forget(before.incarnation)),
            "{steps:?}"
        );
    }
    assert_eq!(mesh.view().linked, [after.incarnation]);
}

#[test]
fn a_large_cluster_is_not_dialled_all_at_once() {
    let mut mesh = mesh();
    mesh.know(
        at(0),
        (1..=300)
            .map(|number| peer(&format!("z{number}"), number))
            .collect(),
    );
    assert_eq!(dials(&mesh.tick(at(0))).len(), DIALS_MAX);
    assert_eq!(mesh.peers.len(), PEERS_MAX);
}
