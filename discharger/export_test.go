package discharger

// Mint lets benchmarks mint without a service.
var Mint = mint
