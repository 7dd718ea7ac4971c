/*
 * gauge REPEAT INPUT -- PROGRAM ARGUMENT...
 *
 * Runs a program REPEAT times, one run after the other, with INPUT on its standard input and nothing on its standard
 * output, and prints a line for each run: when it began (seconds since 1970), wall seconds, CPU seconds (user and
 * system, its waited-for children included), peak RSS in KiB, exit status (128 + n for signal n).
 *
 * C, because wait4(2) is not to be had from safe Rust, and because Linux hands a process that is started the peak RSS
 * of the one that started it: this one's is too small to matter, a Python's is not.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    if (argc < 5 || strcmp(argv[3], "--") != 0) {
        fputs("usage: gauge REPEAT INPUT -- PROGRAM ARGUMENT...\n", stderr);
        return 64;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, argv[2], O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    for (long left = atol(argv[1]); left > 0; left--) {
        double at = now(CLOCK_REALTIME), begun = now(CLOCK_MONOTONIC);
        pid_t child;
        int error = posix_spawnp(&child, argv[4], &actions, NULL, argv + 4, environ);
        if (error != 0) {
            fprintf(stderr, "gauge: %s: %s\n", argv[4], strerror(error));
            return 71;
        }
        int status;
        struct rusage usage;
        if (wait4(child, &status, 0, &usage) < 0) {
            perror("gauge: wait4");
            return 71;
        }
        double wall = now(CLOCK_MONOTONIC) - begun;
        printf("%.6f %.6f %.6f %ld %d\n", at, wall, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss,
               WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    return 0;
}
