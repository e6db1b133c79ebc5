// Package outfile writes the files that a user names on the command line. The command
// mostly runs as root, and the folder is often one where others can write, as /tmp is:
// a link or a file that another user has put there is not followed and not written to.
package outfile
