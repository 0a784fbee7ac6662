"""What exists: boards, nodes, workloads, queues, and the words for why. Plain frozen data, no behaviour of I/O."""
