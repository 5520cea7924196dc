"""A Ray cluster on this machine, in a process of its own: `python cluster.py CPUS CPUS ...`, a node for each number.

It says its address, then takes orders, a line each, and ends when there are none left: `lose N` kills node N (0 is the head's).
"""

from __future__ import annotations

import sys

HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}  # a lost node is missed in one second, not in 15


def main() -> None:
    from ray.cluster_utils import Cluster

    head, *others = (int(each) for each in sys.argv[1:])
    arguments = {"num_cpus": head, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=each) for each in others)]
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            node = nodes[int(line.split()[1])]
            if node is cluster.head_node:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            else:
                cluster.remove_node(node, allow_graceful=False)
            print("lost", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
