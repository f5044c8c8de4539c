package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// Changes returns the keys whose values differ between two configurations, such as
// discharge.ttl, in the order of the types. A list is one value, and so is a section
// that one of the two lacks. A secret belongs to the key of its source.
func Changes(before, after *Config) []string {
	return changes("", reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem())
}

func changes(prefix string, a, b reflect.Value) (keys []string) {
	for i, name := range allKeysOf(a.Type()) {
		x, y := a.Field(i), b.Field(i)
		if name == "-" {
			name = sourceOf(b, a.Type().Field(i).Name)
		}
		key := join(prefix, name)
		if x.Kind() == reflect.Pointer && !x.IsNil() && !y.IsNil() {
			x, y = x.Elem(), y.Elem()
		}
		switch {
		case x.Kind() == reflect.Struct && !isScalar(reflect.New(x.Type()).Elem()):
			keys = append(keys, changes(key, x, y)...)
		case !reflect.DeepEqual(x.Interface(), y.Interface()) && !slices.Contains(keys, key):
			keys = append(keys, key)
		}
	}
	return keys
}

// Keep copies the values of keys that [Changes] returned from another configuration,
// those of sources with their secrets.
func (c *Config) Keep(from *Config, keys []string) {
	for _, key := range keys {
		dot := strings.LastIndexByte(key, '.')
		section, name := key[:max(dot, 0)], key[dot+1:]
		to, value := sectionOf(c, section), sectionOf(from, section)
		before := reflect.New(to.Type()).Elem()
		before.Set(to)
		for i, k := range allKeysOf(to.Type()) {
			field := to.Type().Field(i).Name
			if k == name || k == "-" && (sourceOf(before, field) == name || sourceOf(value, field) == name) {
				to.Field(i).Set(value.Field(i))
			}
		}
	}
}

// sectionOf returns the section with a key; "" is the whole configuration.
func sectionOf(c *Config, key string) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	if key != "" {
		for name := range strings.SplitSeq(key, ".") {
			v = reflect.Indirect(fieldOf(v, name))
		}
	}
	return v
}

// sourceOf returns the key of the source of a secret: for Password, password_file or
// password_env.
func sourceOf(section reflect.Value, field string) string {
	var name strings.Builder
	for i, c := range field {
		if unicode.IsUpper(c) && i > 0 {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(c))
	}
	file, variable := fieldOf(section, name.String()+"_file"), fieldOf(section, name.String()+"_env")
	if file.IsValid() && file.String() == "" && variable.IsValid() {
		return name.String() + "_env"
	}
	return name.String() + "_file"
}

// File is a file that a configuration names.
type File struct {
	Key  string // such as keys.file
	Path string
}

// Files returns the files that the program reads: secrets, keys, certificates and
// rules, configured or at their usual paths. Some may not exist. Files that the
// program writes, such as stores and logs, are left out.
func (c *Config) Files() []File {
	var all []File
	usual := map[string]string{"keys.file": c.KeyFile(), "keys.signing_file": c.SigningFile(), "gateway.keys_file": c.GatewayKeyFile()}
	walk("", reflect.ValueOf(c).Elem(), reflect.StructField{}, func(key string, v reflect.Value, f reflect.StructField) {
		if path := cmp.Or(usual[key], v.String()); path != "" && f.Tag.Get("file") != "" && (key != "keys.signing_file" || c.HasReceivers()) {
			all = append(all, File{key, path})
		}
	})
	return all
}
