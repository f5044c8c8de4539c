// Package backup reads and writes backups of a store: its records at one instant, in one file.
package backup
