"""What reaches what: how a change of one channel travels through the operations of a graph."""
