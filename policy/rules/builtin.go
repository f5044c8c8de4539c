package rules

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtin returns the built-in rule files. Their policies are default, strict, guest, kiosk,
// bots and limits. To change one, load a changed copy of its file.
func Builtin() fs.FS {
	sub, err := fs.Sub(builtin, "builtin")
	if err != nil {
		panic(err) // the directory is embedded
	}
	return sub
}

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
