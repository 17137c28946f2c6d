"""One module per verb of `irc`."""
