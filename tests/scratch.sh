#!/bin/sh
# Print a folder in memory for the temporary files of the tests: what is published is synced, thousands of times in a
# run, and there that takes no time. Nothing, where TMPDIR is set, there is no room, or no code may run.
folder=/dev/shm
[ -z "$TMPDIR" ] || exit 0
room=$(df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }')
[ "${room:-0}" -gt 8388608 ] || exit 0
probe=$(mktemp "$folder/fa4-precompile-XXXXXX") || exit 0
printf '#!/bin/sh\nexit 0\n' > "$probe"
chmod +x "$probe"
"$probe" 2>/dev/null && echo "$folder"
rm -f "$probe"
