// Package journal keeps the revocations of one process in a file of its own.
package journal
