package rules

import (
	"embed"
	"errors"
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

func builtinFiles() (files []rawFile, err error) {
	names, err := fs.Glob(builtin, "builtin/*.yaml")
	for _, name := range names {
		data, readErr := builtin.ReadFile(name)
		err = errors.Join(err, readErr)
		files = append(files, rawFile{name: name, data: data, builtin: true})
	}
	return files, err
}
