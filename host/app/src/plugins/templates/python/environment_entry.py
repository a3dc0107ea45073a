"""componentize-py looks for a resource in a module of its interface's name: `environment.Episode`."""

from app import Episode
