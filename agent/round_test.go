package agent

// binVar names the plugins' folder to a test that runs as another user.
const binVar = "CAVRA_TEST_BIN"
