"""A Ray cluster on this machine, in a process of its own: `python cluster.py CPUS CPUS ...`, a node for each number.

It says its address, then takes orders, a line each, and ends when there are none left: `lose N` kills node N (0 is the head's).
"""

from __future__ import annotations

import sys


def main() -> None:
    from ray.cluster_utils import Cluster

    head, *others = (int(each) for each in sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head, "include_dashboard": False})
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
