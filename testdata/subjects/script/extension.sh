#!/bin/sh
# An extension that is a script: it becomes the program beside it.
exec "$(dirname "$0")/extension" "$@"
