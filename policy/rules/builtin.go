package rules

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtin returns the rule files that are built in, by the names of their
// policies: default, strict, guest, kiosk, bots and limits, with a file each.
// To change one, begin with a copy of it.
func Builtin() fs.FS {
	sub, err := fs.Sub(builtin, "builtin")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return sub
}

// builtinFiles reads the built-in rule files.
func builtinFiles() ([]rawFile, error) {
	entries, err := fs.ReadDir(builtin, "builtin")
	if err != nil {
		return nil, fmt.Errorf("read built-in policies: %w", err)
	}
	var files []rawFile
	for _, e := range entries {
		data, err := fs.ReadFile(builtin, "builtin/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("read built-in policies: %w", err)
		}
		files = append(files, rawFile{name: "builtin/" + e.Name(), data: data, builtin: true})
	}
	return files, nil
}
