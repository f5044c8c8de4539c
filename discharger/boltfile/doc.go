// Package boltfile opens bbolt files so that a damaged one is an error and not a panic.
package boltfile
