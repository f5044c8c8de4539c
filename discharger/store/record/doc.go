// Package record is the stored form of records and events.
package record
