# The Python module with which plugins are written.
{
  lib,
  buildPythonPackage,
  setuptools,
  ferroflux,
}:
let
  project = (lib.importTOML ../crates/plugin-sdk/python/pyproject.toml).project;
in
buildPythonPackage {
  pname = project.name;
  inherit (project) version;
  pyproject = true;
  src = ../crates/plugin-sdk/python;
  build-system = [ setuptools ];
  pythonImportsCheck = [ "ferroflux_plugin" ];
  meta = removeAttrs ferroflux.meta [ "mainProgram" ] // {
    inherit (project) description;
  };
}
