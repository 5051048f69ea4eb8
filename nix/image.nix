# An image for containers whose first process is an instance of one broker.
{
  dockerTools,
  ferroflux,
  bashInteractive,
  coreutils,
}:
dockerTools.buildLayeredImage {
  name = "ferroflux";
  tag = ferroflux.version;
  contents = [
    ferroflux
    bashInteractive
    coreutils
    dockerTools.fakeNss
  ];
  extraCommands = "mkdir -m 1777 tmp";
  config = {
    Entrypoint = [
      "${ferroflux}/bin/flux"
      "start"
    ];
    Env = [ "PATH=/bin" ];
  };
}
