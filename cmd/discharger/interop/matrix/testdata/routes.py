"""Runs Synapse, and writes the method and the pattern of each of its routes to
the file routes.ndjson in the working directory, as one JSON array a line."""

import json

from synapse.app import homeserver
from synapse.http.server import JsonResource

register = JsonResource.register_paths


def register_paths(self, method, path_patterns, callback, servlet_classname):
    patterns = list(path_patterns)
    with open("routes.ndjson", "a", encoding="ascii") as file:
        for pattern in patterns:
            print(json.dumps([method, pattern.pattern]), file=file)
    register(self, method, patterns, callback, servlet_classname)


JsonResource.register_paths = register_paths
homeserver.main()
