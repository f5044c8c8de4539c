package config

import (
	"reflect"
	"slices"
	"strings"
)

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// fieldOf finds a struct's field by the name of its key.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	i := slices.Index(allKeysOf(v.Type()), name)
	if i < 0 || name == "-" {
		return reflect.Value{}, false
	}
	return v.Field(i), true
}

// allKeysOf lists the key of every field, "-" for those that have none.
func allKeysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

// keysOf lists the keys of a struct.
func keysOf(t reflect.Type) []string {
	return slices.DeleteFunc(allKeysOf(t), func(k string) bool { return k == "-" })
}

// hint suggests a key for one that does not exist: one of the same mapping that
// looks alike, or the same word elsewhere.
func hint(name string, t reflect.Type) string {
	if k := alike(name, keysOf(t)); k != "" {
		return ", did you mean " + k + "?"
	}
	for _, path := range paths("", reflect.TypeFor[Config]()) {
		if last := path[strings.LastIndexByte(path, '.')+1:]; last == name {
			return ", did you mean " + path + "?"
		}
	}
	return ""
}

// paths lists the keys of a struct and of all that is in it, such as
// discharge.ttl and homeservers.name.
func paths(prefix string, t reflect.Type) []string {
	var all []string
	for i, k := range allKeysOf(t) {
		if k == "-" {
			continue
		}
		path := join(prefix, k)
		all = append(all, path)
		inner := t.Field(i).Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && !isScalar(reflect.New(inner).Elem()) {
			all = append(all, paths(path, inner)...)
		}
	}
	return all
}
