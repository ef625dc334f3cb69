"""Do answers tell of things that are not in the picture? POPE and CHAIR, their official rules beside stricter ones."""
