"""Networks as folders, on the Hub, in a mirror, in other people's files; and `create`, which needs all of these."""
