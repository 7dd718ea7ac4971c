/*
 * floor DIRECTORY
 *
 * The least that makes a letter durable: what is on standard input goes to a file, fsync, rename, fsync of the directory.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char octets[65536], half[32], whole[32];
    if (argc != 2 || chdir(argv[1]) < 0)
        return 64;
    snprintf(half, sizeof half, "tmp.%ld", (long)getpid());
    snprintf(whole, sizeof whole, "msg.%ld", (long)getpid());
    int file = open(half, O_WRONLY | O_CREAT | O_TRUNC, 0600), directory = open(".", O_RDONLY | O_DIRECTORY);
    if (file < 0 || directory < 0)
        return 73;
    for (ssize_t length; (length = read(STDIN_FILENO, octets, sizeof octets)) > 0;)
        if (write(file, octets, (size_t)length) != length)
            return 73;
    return fsync(file) < 0 || rename(half, whole) < 0 || fsync(directory) < 0 ? 73 : 0;
}
