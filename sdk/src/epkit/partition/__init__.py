"""From claims to partitions: who runs which nodes, in which groups, with which transfers."""
