# A small system, for `nix eval` and for the tests of the generated units.
{ nixpkgs, self }:
nixpkgs.lib.nixosSystem {
  system = "x86_64-linux";
  modules = [
    self.nixosModules.default
    {
      boot.isContainer = true;
      networking.hostName = "head";
      system.stateVersion = "26.05";
      services.flux = {
        enable = true;
        role = "leader";
        hosts = [
          "head"
          "node[1-2]"
        ];
        certificate = "/etc/flux/system/curve.cert";
        openFirewall = true;
        policy.jobspec.defaults.system.duration = "1h";
        housekeeping = "true";
      };
    }
  ];
}
