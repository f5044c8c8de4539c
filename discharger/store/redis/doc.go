// Package redis keeps the records of the service in Redis, for any number of processes.
package redis
