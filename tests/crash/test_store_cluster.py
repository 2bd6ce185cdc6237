"""A store of several servers: a real cluster on loopback, whose nodes are kept like a single server."""

from tests.support.clusters import RunningCluster


def test_a_killed_primary_is_replaced_by_its_replica_and_comes_back_as_one(own_cluster: RunningCluster) -> None:
    primary, replica = own_cluster.primary_of(0), own_cluster.replica_of(0)
    own_cluster.client(primary).set("{q0}:key", "value")
    own_cluster.kill(primary)
    assert own_cluster.wait_until_taken_over(0, primary) == replica
    own_cluster.wait_until_healthy()
    assert own_cluster.replica_of(0) == primary
    assert own_cluster.client(replica).get("{q0}:key") == "value"
