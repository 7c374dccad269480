#!/bin/sh
# Stands in for rm(1) and cp(1) of a Mac: refuses the options that Apple's of macOS 11 refuse, and has Linux's own do the rest. Which options
# those are: rm/rm.c and cp/cp.c of apple-oss-distributions/file_cmds at file_cmds-321.100.11 (`-x` of rm came with 353.100.22, macOS 12.3).
# A call of rm is slow once, when a test says so in SLOW, by a number of seconds.
SLOW=/private/slow-rm
name=${0##*/}
case $name in
    rm) known=dfiPRrvW ;;
    cp) known=cHLPRXafilnprSsvx ;;
esac
words=
while [ $# -gt 0 ]; do
    case $1 in
        --)
            shift
            break
            ;;
        -?*) ;;
        *) break ;;
    esac
    letters=${1#-}
    case $letters in
        *[!"$known"]*)
            unknown=$(printf %s "$letters" | tr -d "$known" | cut -c 1)
            printf '%s: illegal option -- %s\nusage: %s [-%s] file ...\n' "$name" "$unknown" "$name" "$known" >&2
            exit 64
            ;;
    esac
    words="$words $1"
    shift
done
if [ "$name" = rm ] && [ -e $SLOW ]; then
    seconds=$(cat $SLOW)
    /usr/lib/of-linux/rm $SLOW
    sleep "$seconds"
fi
# shellcheck disable=SC2086 # options, one word each
exec /usr/lib/of-linux/"$name" $words -- "$@"
