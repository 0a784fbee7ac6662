"""The node agent: reports a node's boards in its GPUNode, and lays them out as that object's spec wants."""
