// Package bolt keeps the records of the service in one bbolt file.
package bolt
