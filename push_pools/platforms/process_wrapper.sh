# The wrapper of a local job: a POSIX shell that reads this, waits, and is then told which job to start.
#
# It is sent to `sh` on standard input, without its comments, when the shell is started; the line that calls
# `__pp_job` follows when there is a job, as one `{ ...; }` group. A shell parses a whole group before it runs any of
# it, so a server that dies while it writes starts nothing, and its end of the pipe closing ends a wrapper that waits.
# Nothing on the way to the job forks, except for the job itself.
#
# Descriptors: 0 these lines, 1 and 2 the answer to the server, 3 the lock that is held for as long as the wrapper
# lives. Names begin with __pp_, because a name that the job's environment has would be exported to the job.

# `>` creates a file and never writes over one: in every POSIX shell that is open(O_CREAT | O_EXCL).
set -C
__pp_umask=$(umask)
umask 077
# A stop signals the whole group; the wrapper outlives it to write down how the job ended. It also outlives a server
# that died before it read the answer. A trap that is not "ignore" is back to the default in the job itself.
trap : HUP INT PIPE TERM

# job directory, working directory, identity of this wrapper, command...
__pp_job() {
    cd -- "$2" || { echo no-working-dir; exit 72; }
    unset PWD OLDPWD
    # Before the key is used, so that a full disk uses no key. `:` ends the shell if it fails.
    : >>"$1/output"
    # From here on the key is used: of all wrappers that are ever told to start it, one creates the file. It does so
    # before anything of the job runs. If it is killed before the text is in it, the file stays empty, and the free
    # lock says that nothing was, or will be, run.
    echo "$3" >"$1/started" || exit 75
    echo ok
    # What this shell says of the job, such as "Killed", is no output of the job.
    exec >/dev/null 2>&1
    __pp_dir=$1
    shift 3
    umask "$__pp_umask"
    if [ -e "$__pp_dir/stop" ]; then
        __pp_code=143 # A stop that came before there was a process to signal.
    else
        case $1 in
        */*) "$@" </dev/null >>"$__pp_dir/output" 2>&1 3>&- ;;
        # Without a slash `exit`, `cd` and `:` would be commands to this shell. Seldom needed: the server looks the
        # program up, which saves a copy of this process.
        *) (exec "$@" </dev/null >>"$__pp_dir/output" 2>&1 3>&-) ;;
        esac
        __pp_code=$?
    fi
    # One short write. The line counts once its newline is there, so it is there in full or not at all. It goes
    # behind the first line, into a block that the file has already: a disk that is full now does not lose it.
    if [ -e "$__pp_dir/stop" ]; then
        echo "$__pp_code stopped" >>"$__pp_dir/started"
    else
        echo "$__pp_code" >>"$__pp_dir/started"
    fi
    exit 0
}
