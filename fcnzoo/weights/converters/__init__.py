"""Other people's checkpoints made fcnzoo's: one file per publisher."""
