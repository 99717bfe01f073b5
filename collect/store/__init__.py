"""The activation store on disk: shards, commit logs, manifest, verification and archives."""
