# What lib has got since 2020, as far as we use it.
final: prev: {
  types = prev.types // {
    anything = prev.types.unspecified // {
      merge = _: defs: (prev.last defs).value;
    };
    nonEmptyStr = prev.types.strMatching ".*[^ ].*";
    raw = prev.types.unspecified;
  };
  literalMD = text: prev.literalExample text;
  importTOML = path: builtins.fromTOML (builtins.readFile path);
  getExe = pkg: "${pkg}/bin/${pkg.meta.mainProgram or pkg.pname}";
  fileset = {
    unions = files: files;
    toSource = { root, ... }: root;
  };
  systems = prev.systems // {
    elaborate =
      args:
      let
        platform = prev.systems.elaborate args;
      in
      platform // { rust.cargoShortTarget = platform.config; };
  };
  mkPackageOption =
    pkgs: name: _:
    prev.mkOption {
      type = prev.types.package;
      default = pkgs.${name};
      description = "The ${name} package.";
    };
}
