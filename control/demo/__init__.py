"""`turnout demo`: a proxy in front of sample backends, all on this machine and gone afterwards."""
