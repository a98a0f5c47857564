"""Facts from records: published risk scores, free text, structured sources. Nothing here learns."""
