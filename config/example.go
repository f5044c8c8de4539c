package config

import _ "embed"

//go:embed example.yaml
var example string

// Example is a configuration file with every key and what it means. What is not
// commented out is the default.
func Example() string { return example }
